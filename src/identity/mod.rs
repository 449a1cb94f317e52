//! Who is it: local users, passwords, login tokens.
