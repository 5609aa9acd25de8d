"""The one way to learn: settings, set-up and the run behind train, finetune and pretrain."""
