"""What is to be done, and doing it: settings, plan, run, executors, upkeep, looking. Imports nothing heavy."""
