"""What people look at: status, tables, charts, reports, and a database in a notebook."""
