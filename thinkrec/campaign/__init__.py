"""The paper's tables, filled by runs on DVC's experiment queue."""
