"""Training of every model, over one visible loop that resumes."""
