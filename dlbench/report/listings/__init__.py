"""What the commands print that build no report: the plan, the models, layers, one record, an answer, the audit."""
