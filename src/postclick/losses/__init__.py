"""Pure losses, a row first and reduced last (torch)."""
