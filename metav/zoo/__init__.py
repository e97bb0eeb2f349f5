"""The zoo: which surrogates there are, how they are trained and kept, and how they are divided into shares."""
