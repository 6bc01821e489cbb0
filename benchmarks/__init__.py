"""Measurements that anyone can repeat. Protocol: README.md beside this file."""
