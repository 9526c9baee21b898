"""The paper's experimental section on a user's posts: systems, ablations, figures, one report."""
