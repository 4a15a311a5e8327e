//! The order of groups: that of the program, but what gives back more memory than it takes runs
//! as soon as it can.

use super::{Fuser, Group};
use crate::body::{Body, Id};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The groups in an order in which they can run, the same every time.
pub(super) fn schedule(body: &Body, mut fuser: Fuser) -> Vec<Group> {
    let makes: Vec<Vec<Id>> = (0..fuser.groups.len()).map(|g| fuser.makes(g)).collect();
    let order = Scheduler::new(body, &fuser, &makes).run();
    order.into_iter().filter_map(|g| fuser.groups[g].take()).collect()
}

struct Scheduler<'a> {
    body: &'a Body,
    fuser: &'a Fuser<'a>,
    makes: &'a [Vec<Id>],
    /// What each group reads.
    reads: Vec<Vec<Id>>,
    /// How many values each group waits for.
    waits: Vec<usize>,
    /// How many groups have yet to read each value.
    users: Vec<usize>,
    /// Whether a group has run.
    done: Vec<bool>,
    ready: BinaryHeap<Reverse<(isize, usize, usize)>>,
}

impl<'a> Scheduler<'a> {
    fn new(body: &'a Body, fuser: &'a Fuser<'a>, makes: &'a [Vec<Id>]) -> Self {
        let n = fuser.groups.len();
        let mut reads: Vec<Vec<Id>> = vec![Vec::new(); n];
        for (v, users) in fuser.wanted_by.iter().enumerate() {
            users.iter().for_each(|&g| reads[g].push(v));
        }
        let mut waits = vec![0; n];
        for &g in makes.iter().flatten().flat_map(|&v| &fuser.wanted_by[v]) {
            waits[g] += 1;
        }
        let users = fuser.wanted_by.iter().map(|users| users.len()).collect();
        let (done, ready) = (vec![false; n], BinaryHeap::new());
        Scheduler { body, fuser, makes, reads, waits, users, done, ready }
    }

    fn run(mut self) -> Vec<usize> {
        for g in 0..self.makes.len() {
            if self.waits[g] == 0 && self.fuser.groups[g].is_some() {
                self.push(g);
            }
        }
        let mut order = Vec::new();
        while let Some(Reverse((.., g))) = self.ready.pop() {
            // A group is entered again when it has come to free more.
            if std::mem::replace(&mut self.done[g], true) {
                continue;
            }
            order.push(g);
            for v in self.reads[g].clone() {
                self.users[v] -= 1;
                if self.users[v] == 1 {
                    let last = self.fuser.wanted_by[v].iter().find(|&&u| !self.done[u]);
                    last.copied()
                        .filter(|&u| self.waits[u] == 0)
                        .into_iter()
                        .for_each(|u| self.push(u));
                }
            }
            for &v in &self.makes[g] {
                for &user in &self.fuser.wanted_by[v] {
                    self.waits[user] -= 1;
                    if self.waits[user] == 0 {
                        self.push(user);
                    }
                }
            }
        }
        order
    }

    fn push(&mut self, g: usize) {
        let bytes = |v: Id| self.body.values[v].ty.bytes() as isize;
        let kept = |v: &Id| self.fuser.is_result[*v];
        let taken: isize = self.makes[g].iter().filter(|v| !kept(v)).map(|&v| bytes(v)).sum();
        let last = |v: &&Id| self.users[**v] == 1 && !kept(v);
        let freed: isize = self.reads[g].iter().filter(last).map(|&v| bytes(v)).sum();
        self.ready.push(Reverse(((taken - freed).min(0), self.fuser.last[g], g)));
    }
}
