"""Tells people of failures, warnings, late runs and recoveries: in Slack, and by a webhook."""
