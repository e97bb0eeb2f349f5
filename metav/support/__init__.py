"""What every station needs and none owns: random numbers, progress, files, argument checks, arrays, JSON, tables."""
