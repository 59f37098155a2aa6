"""What a report is written as: HTML, PDF, Markdown, LaTeX, CSV, and tables for a terminal."""
