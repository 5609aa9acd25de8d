"""How well rows tell the phases of videos, and how their times correspond: probes, with or without labels."""
