//! Straight-line vector code before it has registers: nodes in order, each defining one value.

use super::encode::{Opcode, Target, opcode};
use std::collections::HashMap;

/// A value, by the node that defines it.
pub type Id = usize;

/// Where a node reads or writes memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `displacement` bytes from an operand's current row, or from its current column, elements of
    /// which have `2^scale` bytes.
    Operand { operand: usize, scale: Option<u8>, displacement: i32 },
    /// In the function's frame.
    Frame(i32),
}

/// What defines a value, or has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// An element of `size` bytes in all lanes.
    Constant {
        bits: u64,
        size: usize,
    },
    /// A vector of the constant pool.
    Pool(usize),
    /// A value that another block has left in the frame.
    Frame {
        at: i32,
        mask: bool,
    },
    /// Lanes that are there, in the last part of a row.
    Tail,
    /// The current column in all lanes of 32 bits.
    Column,
    /// A partial result that a loop carries, by its place in the frame.
    Carried(i32),
    /// Reads memory; lanes outside of the mask are 0.
    Load {
        o: Opcode,
        place: Place,
        mask: Option<Id>,
    },
    /// Reads one element of `size` bytes into all lanes.
    Repeat {
        place: Place,
        size: usize,
    },
    Unary {
        o: Opcode,
        a: Id,
        immediate: Option<u8>,
    },
    Binary {
        o: Opcode,
        a: Id,
        b: Id,
        commutes: bool,
        immediate: Option<u8>,
    },
    /// A shift by a constant.
    Shift {
        o: Opcode,
        digit: u8,
        a: Id,
        amount: u8,
    },
    /// `a·b + c`, rounded once.
    Fma {
        wide: bool,
        a: Id,
        b: Id,
        c: Id,
    },
    /// Compares into a mask of AVX-512.
    Compare {
        o: Opcode,
        a: Id,
        b: Id,
        predicate: Option<u8>,
    },
    /// `mask ? a : b`
    Blend {
        wide: bool,
        mask: Id,
        a: Id,
        b: Id,
    },
    /// On masks of AVX-512.
    Masks {
        o: Opcode,
        a: Id,
        b: Option<Id>,
        immediate: Option<u8>,
    },
    /// An instruction whose result stands where memory may, on vectors of so many bytes.
    Extract {
        o: Opcode,
        a: Id,
        immediate: Option<u8>,
        bytes: usize,
    },
    /// Writes memory in lanes of the mask, from vectors of so many bytes.
    Store {
        o: Opcode,
        place: Place,
        a: Id,
        mask: Option<Id>,
        immediate: Option<u8>,
        bytes: usize,
    },
    /// Asks for a place of an operand's next row.
    Prefetch {
        operand: usize,
        scale: u8,
        displacement: i32,
    },
    /// Leaves a value in the frame.
    Leave {
        at: i32,
        a: Id,
    },
    /// Ends the turn of a loop with a new partial result.
    Carry {
        at: i32,
        a: Id,
    },
    /// Calls `function(data, frame + out, frame + args)`.
    Call {
        function: usize,
        data: usize,
        out: i32,
        args: i32,
    },
}

impl Node {
    /// The values that it uses.
    pub fn args(&self) -> impl Iterator<Item = Id> {
        let args = match *self {
            Node::Load { mask, .. } => [mask, None, None],
            Node::Unary { a, .. }
            | Node::Shift { a, .. }
            | Node::Extract { a, .. }
            | Node::Leave { a, .. }
            | Node::Carry { a, .. } => [Some(a), None, None],
            Node::Binary { a, b, .. } | Node::Compare { a, b, .. } => [Some(a), Some(b), None],
            Node::Fma { a, b, c, .. } => [Some(a), Some(b), Some(c)],
            Node::Blend { mask, a, b, .. } => [Some(mask), Some(a), Some(b)],
            Node::Masks { a, b, .. } => [Some(a), b, None],
            Node::Store { a, mask, .. } => [Some(a), mask, None],
            _ => [None; 3],
        };
        args.into_iter().flatten()
    }

    /// Whether it does more than define a value.
    pub fn acts(&self) -> bool {
        use Node::*;
        matches!(self, Store { .. } | Prefetch { .. } | Leave { .. } | Carry { .. } | Call { .. })
    }

    /// Whether its value can be had again from memory that does not change.
    pub fn stands(&self) -> bool {
        matches!(self, Node::Constant { .. } | Node::Pool(_) | Node::Frame { .. })
    }

    /// Whether it reads what another node may write.
    fn reads(&self) -> bool {
        matches!(self, Node::Load { .. } | Node::Repeat { .. })
    }
}

/// Nodes of one block.
#[derive(Debug)]
pub struct Block {
    pub target: Target,
    pub nodes: Vec<Node>,
    known: HashMap<Node, Id>,
}

const AND: Opcode = opcode(1, 1, 0, 0xdb);
const AND_NOT: Opcode = opcode(1, 1, 0, 0xdf);
const OR: Opcode = opcode(1, 1, 0, 0xeb);
const XOR: Opcode = opcode(1, 1, 0, 0xef);

impl Block {
    pub fn new(target: Target) -> Block {
        Block { target, nodes: Vec::new(), known: HashMap::new() }
    }

    /// Adds a node, unless its value is already there.
    pub fn add(&mut self, node: Node) -> Id {
        let pure = !node.acts() && !node.reads();
        if pure && let Some(&id) = self.known.get(&node) {
            return id;
        }
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        if pure {
            self.known.insert(node, id);
        }
        id
    }

    /// Drops nodes that nothing needs.
    pub fn prune(&mut self) {
        let mut wanted = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().rev() {
            wanted[i] |= node.acts();
            if wanted[i] {
                node.args().for_each(|a| wanted[a] = true);
            }
        }
        let mut place = vec![0; self.nodes.len()];
        let mut kept = Vec::with_capacity(self.nodes.len());
        for (i, &node) in self.nodes.iter().enumerate().filter(|&(i, _)| wanted[i]) {
            place[i] = kept.len();
            kept.push(node.renamed(|a| place[a]));
        }
        self.nodes = kept;
        self.known.clear();
    }

    /// Whether the value is a mask register of AVX-512.
    pub fn is_mask(&self, id: Id) -> bool {
        match self.nodes[id] {
            Node::Compare { .. } | Node::Masks { .. } => true,
            Node::Tail => self.target == Target::Avx512,
            Node::Frame { mask, .. } => mask,
            _ => false,
        }
    }

    pub fn constant32(&mut self, bits: u32) -> Id {
        self.add(Node::Constant { bits: u64::from(bits), size: 4 })
    }

    pub fn constant64(&mut self, bits: u64) -> Id {
        self.add(Node::Constant { bits, size: 8 })
    }

    pub fn unary(&mut self, o: Opcode, a: Id) -> Id {
        self.add(Node::Unary { o, a, immediate: None })
    }

    pub fn binary(&mut self, o: Opcode, a: Id, b: Id) -> Id {
        self.add(Node::Binary { o, a, b, commutes: false, immediate: None })
    }

    /// A binary operation whose operands may be exchanged.
    pub fn symmetric(&mut self, o: Opcode, a: Id, b: Id) -> Id {
        self.add(Node::Binary { o, a, b, commutes: true, immediate: None })
    }

    pub fn shift(&mut self, o: Opcode, digit: u8, a: Id, amount: u8) -> Id {
        self.add(Node::Shift { o, digit, a, amount })
    }

    pub fn and(&mut self, a: Id, b: Id) -> Id {
        self.logic([AND, opcode(1, 0, 0, 0x41)], a, b)
    }

    pub fn or(&mut self, a: Id, b: Id) -> Id {
        self.logic([OR, opcode(1, 0, 0, 0x45)], a, b)
    }

    pub fn xor(&mut self, a: Id, b: Id) -> Id {
        self.logic([XOR, opcode(1, 0, 0, 0x47)], a, b)
    }

    /// `!a & b`
    pub fn and_not(&mut self, a: Id, b: Id) -> Id {
        self.binary(AND_NOT, a, b)
    }

    /// On vectors or on masks.
    fn logic(&mut self, o: [Opcode; 2], a: Id, b: Id) -> Id {
        if self.is_mask(a) {
            return self.add(Node::Masks { o: o[1], a, b: Some(b), immediate: None });
        }
        self.symmetric(o[0], a, b)
    }

    /// The mask's complement.
    pub fn not(&mut self, a: Id) -> Id {
        if self.is_mask(a) {
            return self.add(Node::Masks { o: opcode(1, 0, 0, 0x44), a, b: None, immediate: None });
        }
        let all = self.constant32(!0);
        self.xor(a, all)
    }
}

impl Node {
    /// The same node on renamed values.
    fn renamed(mut self, name: impl Fn(Id) -> Id) -> Node {
        match &mut self {
            Node::Load { mask, .. } => *mask = mask.map(&name),
            Node::Unary { a, .. }
            | Node::Shift { a, .. }
            | Node::Extract { a, .. }
            | Node::Leave { a, .. }
            | Node::Carry { a, .. } => *a = name(*a),
            Node::Binary { a, b, .. } | Node::Compare { a, b, .. } => {
                (*a, *b) = (name(*a), name(*b));
            }
            Node::Fma { a, b, c, .. } => (*a, *b, *c) = (name(*a), name(*b), name(*c)),
            Node::Blend { mask, a, b, .. } => (*mask, *a, *b) = (name(*mask), name(*a), name(*b)),
            Node::Masks { a, b, .. } => (*a, *b) = (name(*a), b.map(&name)),
            Node::Store { a, mask, .. } => (*a, *mask) = (name(*a), mask.map(&name)),
            _ => {}
        }
        self
    }
}
