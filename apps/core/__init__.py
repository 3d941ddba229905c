"""What every room shares: base models, base admin, protected values, outbox, clock."""
