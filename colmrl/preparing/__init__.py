"""Work done ahead: what users arrive with → a data folder in the BEIR layout, resumable, with a manifest."""
