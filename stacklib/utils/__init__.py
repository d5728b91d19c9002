"""Tools that know no astronomy."""
