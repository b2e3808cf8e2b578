"""What people write: recipes and other documents, read strictly. The only place with pydantic."""
