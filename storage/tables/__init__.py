"""What people write: manifests, labels, detections, archives."""
