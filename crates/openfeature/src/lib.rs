//! openfeature
