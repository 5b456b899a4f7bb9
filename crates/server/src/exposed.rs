//! Who was served which side of an experiment on a change of flags, lately.
//!
//! A report of an evaluation names flag, subject and variant, not the attributes that the rules read: whether the change moves this
//! subject, only the evaluation itself knew. In memory only; after a restart a subject counts again when it asks again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use vocab::{Arm, Id};

use crate::app::lock;

/// Subjects and flags in one generation; two are kept.
const GENERATION_MAX: usize = 500_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Exposed {
    generations: Mutex<[HashMap<u64, Arm>; 2]>,
    hasher: RandomState,
}

impl Exposed {
    /// The variant is part of it: a subject that two services ask for with other attributes is served two, in either arm.
    fn place(&self, experiment: Id, key: &str, subject: &str, variant: Option<&str>) -> u64 {
        self.hasher.hash_one((experiment, key, subject, variant.unwrap_or_default()))
    }

    /// Notes what a subject was served.
    pub(crate) fn note(&self, experiment: Id, key: &str, subject: &str, arm: Arm, variant: Option<&str>) {
        let place = self.place(experiment, key, subject, variant);
        let generations = &mut *lock(&self.generations);
        if generations[0].len() >= GENERATION_MAX {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[0].insert(place, arm);
    }

    /// The arm of a subject that reports this variant; none if that is not what it was served.
    pub(crate) fn arm(&self, experiment: Id, key: &str, subject: &str, variant: Option<&str>) -> Option<Arm> {
        let place = self.place(experiment, key, subject, variant);
        let generations = lock(&self.generations);
        generations.iter().find_map(|generation| generation.get(&place)).copied()
    }
}
