//! The HTTPS API.
