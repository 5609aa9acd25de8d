"""Commands, and everything that formats for people; decides nothing."""
