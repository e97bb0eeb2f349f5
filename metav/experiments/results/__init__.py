"""From records to tables, figures and published pages."""
