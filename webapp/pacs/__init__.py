"""The node beside a PACS: radiographs come by C-STORE, DICOMweb or a folder, and answers go back.

`fracture-det pacs` starts it. It shares the store, the audit log and the settings of the page, and runs beside it.
"""
