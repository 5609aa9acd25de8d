"""What a model learns from: labels, targets, stored rows in memory, and which clips and windows are taken."""
