"""Everything that lies on disk or in a bucket: tables of people, arrays, results, the ledger of what is done, locks."""
