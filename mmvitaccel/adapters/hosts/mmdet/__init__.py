"""mmdet's necks and heads."""
