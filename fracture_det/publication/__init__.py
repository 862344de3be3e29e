"""How a Report is shown: pages, figures, tables, galleries, a model card and checklists."""
