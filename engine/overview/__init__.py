"""Everything that somebody who looks once a day should see."""
