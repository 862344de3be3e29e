"""Everything that is drawn: boxes on radiographs, curves and charts. Matplotlib is imported only where it draws."""
