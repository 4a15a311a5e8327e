//! A real chip, by the vendor's runtime. Nothing of this has run on one yet.

use crate::chip::{Chip, Piece, Place, Prepared, compile};
use crate::compiler::{Compiler, Needs};
use crate::device::Ascend;
use crate::product::Product;
use crate::runtime::abi::Package;
use crate::runtime::{self, Block, Cann, Heap, Search, Stage, Stream};
use crate::sim;
use crate::target::Target;
use ferrata_compiler::kernel::Contract;
use ferrata_compiler::{Kernel, Memory};
use ferrata_ir::{Error, Result};
use std::any::Any;
use std::sync::Arc;

/// An Ascend NPU.
pub type AscendNpu = Ascend<Npu>;

/// A chip.
pub struct Npu {
    target: Target,
    /// The vendor's compiler, or why there is none.
    compiler: Result<Compiler>,
    stage: Stage,
    heap: Arc<Heap>,
    stream: Arc<Stream>,
}

/// What a chip runs of a kernel.
pub enum Work {
    /// A program of ours: so many copies of it.
    Launch(Arc<runtime::Kernel>, usize),
    /// A product by the vendor's operators.
    Product(Product),
}

impl Memory for Block {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl AscendNpu {
    /// Opens a chip by its number. Kernels are made by the compiler; without one, or without its last
    /// step, products are the vendor's and everything else is computed by the host.
    ///
    /// # Errors
    /// When the runtime is missing something that nothing works without, when there is no such chip,
    /// or when it is none that kernels are emitted for.
    pub fn open(search: &Search, number: usize, compiler: Result<Compiler>) -> Result<AscendNpu> {
        let cann = Cann::open(search)?;
        let name = cann.chip().ok_or("the runtime does not say which chip this is")?;
        let target = Target::find(&name)?;
        let number = i32::try_from(number).map_err(|e| Error::new(e.to_string()))?;
        let npu = runtime::Npu::open(&cann, number)?;
        let stream = Stream::new(&npu)?;
        let (stage, heap) = (Stage::new(&stream)?, Heap::new(&npu));
        Ok(Ascend::on(Npu { target, compiler, stage, heap, stream }))
    }

    /// The runtime: what was found, and what is missing.
    pub fn cann(&self) -> &Cann {
        self.chip().stream.npu().cann()
    }

    /// Free and total bytes of the chip's memory.
    ///
    /// # Errors
    /// When the chip does not answer.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.chip().stream.npu().memory()
    }
}

impl Npu {
    /// Why no kernels of ours can run, if so.
    fn launches(&self) -> Result<&'static str> {
        let compiler = self.compiler.as_ref().map_err(Clone::clone)?;
        compiler.last_step()?;
        runtime::launches(self.stream.npu().cann())
    }

    /// A kernel by programs of ours.
    fn on_cores(&self, kernel: &Kernel) -> Result<Prepared<Work>> {
        let compiler = self.compiler.as_ref().map_err(Clone::clone)?;
        runtime::launches(self.stream.npu().cann())?;
        let compiled = compile(kernel, &self.target, compiler, Needs::Binary)?;
        Prepared::on_cores(compiled, |launch, compiled| {
            let binary = compiled.binary.as_ref().ok_or("the compiler makes no binary")?;
            let parameters = sim::parameters(&compiled.text)?;
            let npu = self.stream.npu();
            let kernel = runtime::Kernel::load(npu, launch.core, binary, parameters)?;
            Ok(Work::Launch(Arc::new(kernel), launch.grid))
        })
    }

    /// A product by the vendor's operators; what is behind it like a kernel of its own.
    fn by_operators(&self, kernel: &Kernel, contract: &Contract) -> Result<Prepared<Work>> {
        let views = kernel.reads().into_iter().chain(kernel.writes());
        let operands = views.map(|v| v.operand + 1).max().unwrap_or(0);
        let product = Product::find(contract, self.stream.npu().cann())?;
        let [left, right, out] = [&contract.left, &contract.right, &contract.out];
        let of = |out| vec![left.operand, right.operand, out];
        if product.is_whole(contract) {
            let pieces = vec![Piece::Chip(Work::Product(product), of(out.operand))];
            return Ok(Prepared { pieces, workspaces: Vec::new(), lacks: Vec::new() });
        }
        let (product, rest) = product.apart(contract, operands);
        let rest = self.prepare(&Arc::new(Kernel::Loop(rest)))?;
        let bytes = product.bytes();
        let mut pieces = vec![Piece::Chip(Work::Product(product), of(operands))];
        pieces.extend(rest.pieces);
        let workspaces = [bytes].into_iter().chain(rest.workspaces).collect();
        Ok(Prepared { pieces, workspaces, lacks: rest.lacks })
    }
}

impl Chip for Npu {
    type Block = Block;
    type Work = Work;

    fn name(&self) -> &'static str {
        "ascend"
    }

    fn fingerprint(&self) -> String {
        let release = self.stream.npu().cann().release(Package::Cann);
        let release = release.unwrap_or_else(|| "of an unknown release".into());
        format!("{}, CANN {release}", self.target.name)
    }

    fn paths(&self) -> Vec<(&'static str, String)> {
        let cann = self.stream.npu().cann();
        let host = |why: Error| format!("the host, by its meaning: {}", why.message());
        let cores = |what: &str| self.launches().map(|by| format!("{what}, by {by}"));
        let products = |_| runtime::Matmul::find(cann, false).map(|m| format!("{m:?}"));
        vec![
            ("loop, gather, scatter", cores("vector cores").unwrap_or_else(host)),
            ("contract", cores("cube cores").or_else(products).unwrap_or_else(host)),
            ("what the cores lack", "the host, by its meaning".into()),
        ]
    }

    fn allocate(&self, bytes: usize) -> Result<Block> {
        self.heap.allocate(bytes, &self.stream)
    }

    fn clear(&self, block: &Block) -> Result<()> {
        block.clear()
    }

    fn write(&self, (to, at): Place<'_, Self>, bytes: &[u8]) -> Result<()> {
        self.stage.upload(to, at, bytes)
    }

    fn read(&self, (from, at): Place<'_, Self>, bytes: usize) -> Result<Vec<u8>> {
        self.stage.download(from, at, bytes)
    }

    fn copy(&self, from: Place<'_, Self>, to: Place<'_, Self>, bytes: usize) -> Result<()> {
        to.0.copy(to.1, from.0, from.1, bytes)
    }

    fn prepare(&self, kernel: &Arc<Kernel>) -> Result<Prepared<Work>> {
        let lack = match self.on_cores(kernel) {
            Ok(prepared) => return Ok(prepared),
            Err(lack) => lack.message().to_owned(),
        };
        let Kernel::Contract(contract) = &**kernel else {
            return Ok(Prepared::on_host(kernel, lack));
        };
        Ok(match self.by_operators(kernel, contract) {
            Ok(mut prepared) => {
                prepared.lacks.push(format!("a product by the vendor's operator: {lack}"));
                prepared
            }
            Err(also) => Prepared::on_host(kernel, format!("{lack}; {}", also.message())),
        })
    }

    fn run(&self, work: &Work, operands: &[Place<'_, Self>]) -> Result<()> {
        match work {
            Work::Launch(kernel, grid) => {
                let address = |(block, at): &Place<'_, Self>| block.address(*at, 0);
                let pointers = operands.iter().map(address).collect::<Result<Vec<_>>>()?;
                self.stream.keep(Arc::clone(kernel));
                // SAFETY: the program was emitted for operands of these places, whose blocks the
                // plan has made large enough; blocks are only used by later work of this stream.
                #[allow(unsafe_code)]
                unsafe {
                    kernel.launch(&pointers, *grid, &self.stream)
                }
            }
            Work::Product(product) => product.run(operands, &self.stream, &self.heap),
        }
    }

    fn wait(&self) -> Result<()> {
        self.stream.wait()
    }
}
