"""What the notebooks are made with: runs and their metrics, the report page, plots, players, widgets."""
