"""How an evaluation is shown: HTML, Markdown, figures, galleries, checklists, model card."""
