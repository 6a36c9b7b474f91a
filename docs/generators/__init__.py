"""What the build computes: pages of methods and reports, and the numbers of worked examples."""
