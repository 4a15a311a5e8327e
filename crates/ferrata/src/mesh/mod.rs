//! One of the ranks of a mesh: a device whose tensors lie on many machines.
//!
//! A tensor on a [`MeshDevice`] has the shape of the whole value; each rank holds the part that
//! its [`Placement`] says. Programs are cut for the placements of their arguments and run together
//! by all ranks, which therefore have to do the same things in the same order. Reading a tensor
//! gathers it, on every rank.
//!
//! | file | what |
//! |---|---|
//! | `layout` | [`Layout`]: how weights, optimiser state and batches lie |
//! | `replicas` | whether replicas hold the same bits |

mod layout;
mod replicas;

pub use ferrata_ir::communicator::Report;
pub use ferrata_ir::sharding::{
    ContextParallel, Cut, Mesh, Named, Names, Placement, Rates, Reshard, Schedule, Sharding, Stage,
};
use layout::SAMPLES;
pub use layout::{Layout, Rule, Zero};

use crate::Tensor;
use crate::device::{CpuOptions, Device};
use crate::tensor::State;
use ferrata_compiler::watch::{Level, Limits, Watch};
use ferrata_compiler::{Argument, Buffer, Device as Backend, Executable, Memory, Plan};
use ferrata_cpu::CpuDevice;
use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::sharding::{Partition, Setting, partition};
use ferrata_ir::{Builder, Communicator, Composite, DType, Error, Function, Result, Type};
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// One rank's device.
pub struct MeshDevice {
    shared: Arc<Shared>,
    /// Programs that move a value.
    moves: Mutex<HashMap<Move, Arc<dyn Executable>>>,
}

/// A value of this type from one sharding to another.
type Move = (Type, Sharding, Sharding);

/// What a rank's device shares with its programs.
struct Shared {
    mesh: Mesh,
    rank: usize,
    names: Names,
    rates: Rates,
    way: MeshOptions,
    communicator: Arc<dyn Communicator>,
    /// What the rank computes with.
    inner: CpuDevice,
}

/// The part of a value that a rank holds. Taken out when it is donated.
struct Part {
    buffer: Mutex<Option<Buffer>>,
    placement: Placement,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a part that lies as {:?}", self.placement.sharding)
    }
}

/// What a rank holds of a value.
pub(crate) struct Held {
    pub rank: usize,
    /// Its own type.
    pub ty: Type,
    pub bytes: Vec<u8>,
    /// Where the bytes are in the whole. Without it there are none, because a rank before it holds
    /// the same, or it holds nothing.
    pub stretches: Option<Vec<Vec<Range<usize>>>>,
}

impl Memory for Part {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// How the dimensions that models name are cut.
fn names(mesh: &Mesh, way: &MeshOptions) -> Names {
    let positions: &[&str] = if way.sequence { &["context", "tensor"] } else { &["context"] };
    let names: [(&str, &[&str]); 4] = [
        ("batch", &SAMPLES),
        ("position", positions),
        ("expert", &["expert"]),
        ("slot", &["data", "context"]),
    ];
    let named = |(name, axes): (&str, &[&str])| {
        let axes = axes.iter().filter_map(|name| mesh.axis(name)).collect();
        let dealt = name == "position" && way.deals_positions();
        (name.to_owned(), Named { axes, dealt })
    };
    names.into_iter().map(named).collect()
}

fn part(buffer: &Buffer) -> Result<&Part> {
    let found = buffer.memory.as_any().downcast_ref::<Part>();
    found.ok_or_else(|| Error::new("the buffer belongs to another device"))
}

impl Part {
    fn get(&self) -> Result<Buffer> {
        let held = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().ok_or_else(|| Error::new("the value was overwritten"))
    }

    fn take(&self) -> Result<Buffer> {
        let taken = self.buffer.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| Error::new("the value was overwritten"))
    }
}

/// How the ranks of a mesh work together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshOptions {
    /// Whether values between layers are cut along `tensor` too, by positions (Korthikanti et al.
    /// 2022).
    pub sequence: bool,
    /// How the stages of a pipeline work on the iterations of a loop over microbatches.
    pub schedule: Schedule,
    /// Whether sums over a loop's iterations are cut too where that saves memory, which sends
    /// something in each iteration; else ranks combine whole sums of their own once.
    pub cut_sums: bool,
    /// How attention works where `context` cuts positions.
    pub context: ContextParallel,
}

impl MeshOptions {
    /// Whether the positions along `context` are dealt out one by one, so that around a ring all
    /// ranks have as much to do where queries see the past only (Brandon et al. 2023).
    fn deals_positions(&self) -> bool {
        self.context == ContextParallel::Ring && !self.sequence
    }
}

impl MeshDevice {
    /// The device of the rank that `communicator` connects to the others, with its own threads.
    ///
    /// # Errors
    /// When there are not as many ranks as the mesh has, or the CPU cannot be used.
    pub fn new(
        mesh: Mesh,
        communicator: Arc<dyn Communicator>,
        way: MeshOptions,
        options: CpuOptions,
    ) -> Result<MeshDevice> {
        let (size, rank) = (communicator.size(), communicator.rank());
        if mesh.size() != size {
            let wanted = mesh.size();
            return Err(Error::new(format!("the mesh {mesh} has {wanted} ranks, not {size}"))
                .help(format!("start {wanted} ranks, or choose axes whose product is {size}")));
        }
        let options = CpuOptions { communicator: Some(communicator.clone()), ..options };
        let inner = CpuDevice::new(options)?;
        let (names, rates) = (names(&mesh, &way), Rates::default());
        let shared = Shared { mesh, rank, names, rates, way, communicator, inner };
        Ok(MeshDevice { shared: Arc::new(shared), moves: Mutex::default() })
    }

    /// The mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.shared.mesh
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.shared.rank
    }

    /// Tells whoever watches over the run what this rank is about to do.
    pub fn report(&self, what: Report<'_>) {
        self.shared.communicator.report(what);
    }

    /// What every rank says, in their order; all have to ask.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn gather(&self, here: &[u8]) -> Result<Vec<Vec<u8>>> {
        let communicator = &self.shared.communicator;
        let everyone: Vec<usize> = (0..self.mesh().size()).collect();
        let each = vec![size_of::<u64>(); everyone.len()];
        let mut sizes = vec![0; size_of::<u64>() * everyone.len()];
        let own = (here.len() as u64).to_le_bytes();
        communicator.all_gather(&everyone, &own, &each, &mut sizes)?;
        let (sizes, _) = sizes.as_chunks();
        let sizes: Vec<usize> = sizes.iter().map(|&n| u64::from_le_bytes(n) as usize).collect();
        let mut all = vec![0; sizes.iter().sum()];
        communicator.all_gather(&everyone, here, &sizes, &mut all)?;
        Ok(sizes.iter().map(|&size| all.drain(..size).collect()).collect())
    }

    /// Whether any rank says so; all have to ask.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn any(&self, here: bool) -> Result<bool> {
        let everyone: Vec<usize> = (0..self.mesh().size()).collect();
        let mut flag = [u8::from(here)];
        let communicator = &self.shared.communicator;
        communicator.all_reduce(&everyone, ReduceKind::Or, DType::U8, &mut flag)?;
        Ok(flag[0] != 0)
    }

    /// As [`Backend::compile`]; result `i` will lie as input `like[i]`, if there is one. The
    /// program is cut now if it is known how its inputs lie.
    pub(crate) fn compile_like(
        &self,
        program: &Arc<Function>,
        donated: &[bool],
        like: &[Option<usize>],
        inputs: Option<Vec<Placement>>,
    ) -> Result<Arc<dyn Executable>> {
        let program = MeshProgram {
            shared: self.shared.clone(),
            program: program.clone(),
            donated: donated.to_vec(),
            like: like.to_vec(),
            known: Mutex::default(),
            first: OnceLock::new(),
        };
        if let Some(inputs) = inputs {
            program.local(inputs)?;
        }
        Ok(Arc::new(program))
    }

    /// The value so that it lies otherwise.
    pub(crate) fn place(&self, buffer: &Buffer, to: &Placement) -> Result<Buffer> {
        let held = part(buffer)?;
        to.sharding.check(self.mesh(), &buffer.ty)?;
        let (from, ty) = (&held.placement.sharding, &buffer.ty);
        if *from == to.sharding {
            return Ok(self.shared.buffer(ty.clone(), held.get()?, to.clone()));
        }
        let key = (ty.clone(), from.clone(), to.sharding.clone());
        let known = self.moves.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let program = match known {
            Some(program) => program,
            None => {
                let mut b = Builder::new("place");
                let x = b.parameter(ty.clone());
                let whole = Arc::new(b.finish(&[x])?);
                let from = Placement::data(from.clone());
                let cut = self.shared.cut(&whole, &[from], &[Some(to.sharding.clone())])?;
                let made = self.shared.inner.compile(&cut.program, &[false])?;
                let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
                moves.entry(key).or_insert(made).clone()
            }
        };
        let mut made = program.run(vec![Argument::Shared(held.get()?)])?;
        Ok(self.shared.buffer(ty.clone(), made.swap_remove(0), to.clone()))
    }

    fn replicated(&self, ty: Type, buffer: Buffer) -> Buffer {
        let placement = Placement::data(Sharding::replicated(ty.rank()));
        self.shared.buffer(ty, buffer, placement)
    }
}

impl Shared {
    fn buffer(&self, ty: Type, buffer: Buffer, placement: Placement) -> Buffer {
        let part = Part { buffer: Mutex::new(Some(buffer)), placement };
        Buffer { ty, memory: Arc::new(part) }
    }

    fn cut(
        &self,
        program: &Arc<Function>,
        parameters: &[Placement],
        results: &[Option<Sharding>],
    ) -> Result<Partition> {
        let (mesh, names, rates) = (&self.mesh, &self.names, self.rates);
        let MeshOptions { schedule, cut_sums, context, .. } = self.way;
        let setting = Setting { mesh, names, rates, schedule, cut_sums, context };
        partition(program, &setting, self.rank, parameters, results)
    }
}

/// A program, cut for each way in which its arguments have lain.
struct MeshProgram {
    shared: Arc<Shared>,
    program: Arc<Function>,
    donated: Vec<bool>,
    like: Vec<Option<usize>>,
    known: Mutex<HashMap<Vec<Placement>, Arc<Local>>>,
    /// The first of them.
    first: OnceLock<Arc<Local>>,
}

/// The program of this rank.
struct Local {
    executable: Arc<dyn Executable>,
    results: Vec<Placement>,
    partition: Partition,
}

impl MeshProgram {
    fn local(&self, parameters: Vec<Placement>) -> Result<Arc<Local>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&parameters) {
            return Ok(found.clone());
        }
        let like = |i: usize| self.like.get(i).copied().flatten().map(|at| &parameters[at]);
        let results = self.program.results().len();
        let wanted: Vec<_> = (0..results).map(|i| like(i).map(|p| p.sharding.clone())).collect();
        let cut = self.shared.cut(&self.program, &parameters, &wanted)?;
        let executable = self.shared.inner.compile(&cut.program, &self.donated)?;
        let placed = cut.results.iter().cloned().enumerate();
        let results = placed.map(|(i, sharding)| match like(i) {
            Some(placement) => placement.clone(),
            None => Placement::data(sharding),
        });
        let results = results.collect();
        let local = Arc::new(Local { executable, results, partition: cut });
        lock().insert(parameters, local.clone());
        self.first.get_or_init(|| local.clone());
        Ok(local)
    }

    fn run_with(
        &self,
        arguments: Vec<Argument>,
        run: impl FnOnce(&dyn Executable, Vec<Argument>) -> Result<Vec<Buffer>>,
    ) -> Result<Vec<Buffer>> {
        let placements = arguments.iter().map(|a| Ok(part(a.buffer())?.placement.clone()));
        let local = self.local(placements.collect::<Result<_>>()?)?;
        let inner = arguments.into_iter().map(|argument| match argument {
            Argument::Shared(buffer) => part(&buffer)?.get().map(Argument::Shared),
            Argument::Donated(buffer) if Arc::strong_count(&buffer.memory) > 1 => {
                part(&buffer)?.get().map(Argument::Shared)
            }
            Argument::Donated(buffer) => part(&buffer)?.take().map(Argument::Donated),
        });
        let made = run(&*local.executable, inner.collect::<Result<_>>()?)?;
        let types = self.program.result_types();
        let results = made.into_iter().zip(types).zip(&local.results);
        Ok(results.map(|((y, ty), p)| self.shared.buffer(ty.clone(), y, p.clone())).collect())
    }
}

impl Executable for MeshProgram {
    fn run(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>> {
        self.run_with(arguments, |program, arguments| program.run(arguments))
    }

    fn run_watching(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>> {
        self.run_with(arguments, |program, arguments| program.run_watching(arguments))
    }

    fn plan(&self) -> Option<&Plan> {
        self.first.get()?.executable.plan()
    }

    fn partition(&self) -> Option<&Partition> {
        self.first.get().map(|local| &local.partition)
    }
}

impl Backend for MeshDevice {
    fn name(&self) -> &str {
        self.shared.inner.name()
    }

    fn fingerprint(&self) -> String {
        format!("{}, mesh {}", self.shared.inner.fingerprint(), self.mesh())
    }

    fn supports(&self, dtype: DType) -> bool {
        self.shared.inner.supports(dtype)
    }

    fn claims(&self, composite: &Composite, inputs: &[&Type]) -> bool {
        self.shared.inner.claims(composite, inputs)
    }

    fn upload(&self, ty: Type, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.shared.inner.upload(ty.clone(), bytes)?;
        Ok(self.replicated(ty, buffer))
    }

    fn zeros(&self, ty: Type) -> Result<Buffer> {
        let buffer = self.shared.inner.zeros(ty.clone())?;
        Ok(self.replicated(ty, buffer))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        let everywhere = Placement::data(Sharding::replicated(buffer.ty.rank()));
        let whole = self.place(buffer, &everywhere)?;
        self.shared.inner.download(&part(&whole)?.get()?)
    }

    fn compile(&self, program: &Arc<Function>, donated: &[bool]) -> Result<Arc<dyn Executable>> {
        self.compile_like(program, donated, &[], None)
    }

    fn watch(&self, watch: Option<Watch>) {
        self.shared.inner.watch(watch);
    }

    fn limits(&self) -> Option<Limits> {
        self.shared.inner.limits()
    }

    fn levels(&self) -> Vec<Level> {
        self.shared.inner.levels()
    }
}

impl Tensor {
    /// The same value so that it lies on its mesh as `placement` says; a tensor that is on no
    /// [`MeshDevice`] stays as it is.
    #[track_caller]
    pub fn place(&self, placement: &Placement) -> Tensor {
        Tensor::op("place", &[self], || {
            let stored = self.stored()?;
            let Some(mesh) = stored.device.mesh() else { return Ok(self.clone()) };
            let placed = mesh.place(&stored.buffer, placement)?;
            Ok(Tensor::concrete(placed, stored.device.clone()))
        })
    }

    /// What this rank holds of the value. It has to be on a mesh.
    pub(crate) fn held(&self) -> Result<Held> {
        let State::Concrete(stored) = self.state() else {
            return Err(Error::new("the value has not been computed"));
        };
        let mesh = stored.device.mesh();
        let mesh = mesh.ok_or_else(|| Error::new("the value is on no mesh"))?;
        let (rank, part) = (mesh.rank(), part(&stored.buffer)?);
        let (sharding, buffer) = (&part.placement.sharding, part.get()?);
        let own = sharding.replica(mesh.mesh(), rank);
        let first = (0..rank).all(|other| sharding.replica(mesh.mesh(), other) != own);
        let stretches = sharding.stretches(mesh.mesh(), self.ty(), rank).filter(|_| first);
        let bytes = match stretches {
            Some(_) => mesh.shared.inner.download(&buffer)?,
            None => Vec::new(),
        };
        Ok(Held { rank, ty: buffer.ty, bytes, stretches })
    }

    /// How the value lies on its mesh, if it has been computed and is on one.
    pub fn placement(&self) -> Option<Placement> {
        let State::Concrete(stored) = self.state() else { return None };
        stored.device.mesh()?;
        part(&stored.buffer).ok().map(|part| part.placement.clone())
    }
}

impl From<MeshDevice> for Device {
    fn from(mesh: MeshDevice) -> Device {
        Device::from_mesh(Arc::new(mesh))
    }
}
