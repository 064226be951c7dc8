"""What this stack costs beside others, as ratios of runs made in one sitting; see __main__.py."""
