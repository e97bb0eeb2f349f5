"""Models as such: how they are run, trained, copied, told apart and grouped. Nothing here knows a task."""
