"""What belongs to one application in this process, and its clock."""
