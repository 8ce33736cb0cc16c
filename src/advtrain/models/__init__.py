"""Networks: one file each; normalisation is the first layer of every one."""
