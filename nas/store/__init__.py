"""The record of studies: one database; SQLAlchemy is imported here alone."""
