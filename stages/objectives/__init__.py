"""What is minimised: the contract, classification, contrastive losses."""
