"""A plain description of each pipeline's DAG, made from its file and its manifest."""
