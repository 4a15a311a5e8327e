#map = affine_map<()[s0] -> (s0 * -11 + 200, 11)>
#map1 = affine_map<()[s0] -> (s0 * 3300)>
module attributes {dlti.target_system_spec = #dlti.target_system_spec<"NPU" : #hacc.target_device_spec<#dlti.dl_entry<"AI_CORE_COUNT", 20 : i32>, #dlti.dl_entry<"CUBE_CORE_COUNT", 20 : i32>, #dlti.dl_entry<"VECTOR_CORE_COUNT", 40 : i32>, #dlti.dl_entry<"UB_SIZE", 1572864 : i32>, #dlti.dl_entry<"L1_SIZE", 4194304 : i32>, #dlti.dl_entry<"L0A_SIZE", 524288 : i32>, #dlti.dl_entry<"L0B_SIZE", 524288 : i32>, #dlti.dl_entry<"L0C_SIZE", 1048576 : i32>, #dlti.dl_entry<"UB_ALIGN_SIZE", 256 : i32>, #dlti.dl_entry<"L1_ALIGN_SIZE", 256 : i32>, #dlti.dl_entry<"L0C_ALIGN_SIZE", 4096 : i32>>>,   hivm.module_core_type = #hivm.module_core_type<AIV>} {
  func.func @kernel_infer_task_type_function() -> i8 attributes {hacc.function_kind = #hacc.function_kind<HOST>, hacc.host_func_type = #hacc.host_func_type<infer_task_type_function>} {
    %c10_i8 = arith.constant 10 : i8
    return %c10_i8 : i8
  }
  func.func private @load_gm_to_ubuf_1d_float(memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<gm>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>, i32, f32, index) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func private @load_gm_to_ubuf_2d_float(memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, i32, f32, index) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func private @vadd_2d_float(memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func private @vmuls_vs_2d_float(memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, f32, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func private @vexp_2d_float(memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func private @vadds_vs_2d_float(memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, f32, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func private @broadcast_scalar_float_to_2d(f32, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func private @vdiv_2d_float(memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func private @store_ubuf_to_gm_2d_float(memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, i32) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIV>, llvm.emit_c_interface}
  func.func @kernel(%arg0: i64 {hacc.arg_type = #hacc.arg_type<ffts_base_address>}, %arg1: memref<?xf32, #hivm.address_space<gm>>, %arg2: memref<?xf32, #hivm.address_space<gm>>, %arg3: memref<?xf32, #hivm.address_space<gm>>, %arg4: i32, %arg5: i32, %arg6: i32) attributes {func_dyn_memref_args = dense<[false, true, true, true, false, false, false]> : vector<7xi1>, hacc.entry, hacc.function_kind = #hacc.function_kind<DEVICE>, hivm.func_core_type = #hivm.func_core_type<AIV>, hivm.storage_aligned, mix_mode = "aiv"} {
    %cst = arith.constant 0.000000e+00 : f32
    %c0_i32 = arith.constant 0 : i32
    %c14592_i64 = arith.constant 14592 : i64
    %c1216_i64 = arith.constant 1216 : i64
    %c0_i64 = arith.constant 0 : i64
    %cst_0 = arith.constant -1.000000e+00 : f32
    %cst_1 = arith.constant 1.000000e+00 : f32
    %c0 = arith.constant 0 : index
    hivm.hir.set_mask_norm
    %0 = hivm.hir.get_block_idx -> i64
    %1 = arith.trunci %0 : i64 to i32
    %2 = arith.muli %arg6, %arg5 : i32
    %3 = arith.divsi %1, %2 : i32
    %4 = arith.remsi %3, %arg4 : i32
    %5 = arith.index_cast %4 : i32 to index
    %6 = affine.min #map()[%5]
    %reinterpret_cast = memref.reinterpret_cast %arg1 to offset: [0], sizes: [1, 300], strides: [300, 1] : memref<?xf32, #hivm.address_space<gm>> to memref<1x300xf32, #hivm.address_space<gm>>
    %7 = hivm.hir.pointer_cast(%c0_i64) : memref<1x300xf32, #hivm.address_space<ub>>
    %collapse_shape = memref.collapse_shape %reinterpret_cast [[0, 1]] : memref<1x300xf32, #hivm.address_space<gm>> into memref<300xf32, #hivm.address_space<gm>>
    %collapse_shape_2 = memref.collapse_shape %7 [[0, 1]] : memref<1x300xf32, #hivm.address_space<ub>> into memref<300xf32, #hivm.address_space<ub>>
    %cast = memref.cast %collapse_shape : memref<300xf32, #hivm.address_space<gm>> to memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<gm>>
    %cast_3 = memref.cast %collapse_shape_2 : memref<300xf32, #hivm.address_space<ub>> to memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>
    call @load_gm_to_ubuf_1d_float(%cast, %cast_3, %c0_i32, %cst, %c0) : (memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<gm>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>, i32, f32, index) -> ()
    %8 = affine.apply #map1()[%5]
    %reinterpret_cast_4 = memref.reinterpret_cast %arg2 to offset: [%8], sizes: [11, 300], strides: [300, 1] : memref<?xf32, #hivm.address_space<gm>> to memref<11x300xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>>
    %subview = memref.subview %reinterpret_cast_4[0, 0] [%6, 300] [1, 1] : memref<11x300xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x300xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>>
    %9 = hivm.hir.pointer_cast(%c1216_i64) : memref<11x304x1xf32, #hivm.address_space<ub>>
    %subview_5 = memref.subview %9[0, 0, 0] [11, 300, 1] [1, 1, 1] : memref<11x304x1xf32, #hivm.address_space<ub>> to memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    %subview_6 = memref.subview %subview_5[0, 0] [%6, 300] [1, 1] : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    %cast_7 = memref.cast %subview : memref<?x300xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>
    %cast_8 = memref.cast %subview_6 : memref<?x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    call @load_gm_to_ubuf_2d_float(%cast_7, %cast_8, %c0_i32, %cst, %c0) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, i32, f32, index) -> ()
    hivm.hir.set_flag[<PIPE_MTE2>, <PIPE_V>, <EVENT_ID0>]
    %10 = hivm.hir.pointer_cast(%c1216_i64) : memref<11x304x1xf32, #hivm.address_space<ub>>
    %subview_9 = memref.subview %10[0, 0, 0] [11, 300, 1] [1, 1, 1] : memref<11x304x1xf32, #hivm.address_space<ub>> to memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    hivm.hir.wait_flag[<PIPE_MTE2>, <PIPE_V>, <EVENT_ID0>]
    %11 = hivm.hir.pointer_cast(%c0_i64) : memref<0xf32, #hivm.address_space<ub>>
    %cast_10 = memref.cast %subview_5 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_11 = memref.cast %7 : memref<1x300xf32, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_12 = memref.cast %subview_9 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_13 = memref.cast %11 : memref<0xf32, #hivm.address_space<ub>> to memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>
    call @vadd_2d_float(%cast_10, %cast_11, %cast_12, %cast_13) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) -> ()
    %12 = hivm.hir.pointer_cast(%c1216_i64) : memref<11x304x1xf32, #hivm.address_space<ub>>
    %subview_14 = memref.subview %12[0, 0, 0] [11, 300, 1] [1, 1, 1] : memref<11x304x1xf32, #hivm.address_space<ub>> to memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    hivm.hir.pipe_barrier[<PIPE_V>]
    %13 = hivm.hir.pointer_cast(%c0_i64) : memref<0xf32, #hivm.address_space<ub>>
    %cast_15 = memref.cast %subview_9 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_16 = memref.cast %subview_14 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_17 = memref.cast %13 : memref<0xf32, #hivm.address_space<ub>> to memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>
    call @vmuls_vs_2d_float(%cast_15, %cst_0, %cast_16, %cast_17) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, f32, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) -> ()
    %14 = hivm.hir.pointer_cast(%c1216_i64) : memref<11x304x1xf32, #hivm.address_space<ub>>
    %subview_18 = memref.subview %14[0, 0, 0] [11, 300, 1] [1, 1, 1] : memref<11x304x1xf32, #hivm.address_space<ub>> to memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    hivm.hir.pipe_barrier[<PIPE_V>]
    %15 = hivm.hir.pointer_cast(%c0_i64) : memref<0xf32, #hivm.address_space<ub>>
    %cast_19 = memref.cast %subview_14 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_20 = memref.cast %subview_18 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_21 = memref.cast %15 : memref<0xf32, #hivm.address_space<ub>> to memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>
    call @vexp_2d_float(%cast_19, %cast_20, %cast_21) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) -> ()
    %16 = hivm.hir.pointer_cast(%c1216_i64) : memref<11x304x1xf32, #hivm.address_space<ub>>
    %subview_22 = memref.subview %16[0, 0, 0] [11, 300, 1] [1, 1, 1] : memref<11x304x1xf32, #hivm.address_space<ub>> to memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    hivm.hir.pipe_barrier[<PIPE_V>]
    %17 = hivm.hir.pointer_cast(%c0_i64) : memref<0xf32, #hivm.address_space<ub>>
    %cast_23 = memref.cast %subview_18 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_24 = memref.cast %subview_22 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_25 = memref.cast %17 : memref<0xf32, #hivm.address_space<ub>> to memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>
    call @vadds_vs_2d_float(%cast_23, %cst_1, %cast_24, %cast_25) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, f32, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) -> ()
    %18 = hivm.hir.pointer_cast(%c14592_i64) : memref<11x304x1xf32, #hivm.address_space<ub>>
    %subview_26 = memref.subview %18[0, 0, 0] [11, 300, 1] [1, 1, 1] : memref<11x304x1xf32, #hivm.address_space<ub>> to memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    %cast_27 = memref.cast %subview_26 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    call @broadcast_scalar_float_to_2d(%cst_1, %cast_27) : (f32, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>) -> ()
    %19 = hivm.hir.pointer_cast(%c14592_i64) : memref<11x304x1xf32, #hivm.address_space<ub>>
    %subview_28 = memref.subview %19[0, 0, 0] [11, 300, 1] [1, 1, 1] : memref<11x304x1xf32, #hivm.address_space<ub>> to memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    hivm.hir.pipe_barrier[<PIPE_V>]
    %20 = hivm.hir.pointer_cast(%c0_i64) : memref<0xf32, #hivm.address_space<ub>>
    %cast_29 = memref.cast %subview_26 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_30 = memref.cast %subview_22 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_31 = memref.cast %subview_28 : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_32 = memref.cast %20 : memref<0xf32, #hivm.address_space<ub>> to memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>
    call @vdiv_2d_float(%cast_29, %cast_30, %cast_31, %cast_32) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?xf32, strided<[?], offset: ?>, #hivm.address_space<ub>>) -> ()
    hivm.hir.set_flag[<PIPE_V>, <PIPE_MTE3>, <EVENT_ID0>]
    %reinterpret_cast_33 = memref.reinterpret_cast %arg3 to offset: [%8], sizes: [11, 300], strides: [300, 1] : memref<?xf32, #hivm.address_space<gm>> to memref<11x300xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>>
    %subview_34 = memref.subview %reinterpret_cast_33[0, 0] [%6, 300] [1, 1] : memref<11x300xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x300xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>>
    %subview_35 = memref.subview %subview_28[0, 0] [%6, 300] [1, 1] : memref<11x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x300xf32, strided<[304, 1]>, #hivm.address_space<ub>>
    hivm.hir.wait_flag[<PIPE_V>, <PIPE_MTE3>, <EVENT_ID0>]
    %cast_36 = memref.cast %subview_35 : memref<?x300xf32, strided<[304, 1]>, #hivm.address_space<ub>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>
    %cast_37 = memref.cast %subview_34 : memref<?x300xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>
    call @store_ubuf_to_gm_2d_float(%cast_36, %cast_37, %c0_i32) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<ub>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, i32) -> ()
    hivm.hir.pipe_barrier[<PIPE_ALL>]
    return
  }
}
