#map = affine_map<()[s0] -> (s0 * -128 + 200, 128)>
#map1 = affine_map<()[s0] -> (s0 * -256 + 300, 256)>
#map2 = affine_map<()[s0] -> (s0 mod 2)>
#map3 = affine_map<()[s0] -> (s0 * -128 + 600, 128)>
#map4 = affine_map<()[s0, s1] -> (s0 * 76800 + s1 * 128)>
#map5 = affine_map<()[s0] -> ((s0 + 15) floordiv 16)>
#map6 = affine_map<()[s0] -> ((s0 + 7) floordiv 8)>
#map7 = affine_map<()[s0, s1] -> (s0 * 128 + s1 * 153600)>
#map8 = affine_map<()[s0, s1] -> (s0 * 38400 + s1 * 256)>
module attributes {dlti.target_system_spec = #dlti.target_system_spec<"NPU" : #hacc.target_device_spec<#dlti.dl_entry<"AI_CORE_COUNT", 20 : i32>, #dlti.dl_entry<"CUBE_CORE_COUNT", 20 : i32>, #dlti.dl_entry<"VECTOR_CORE_COUNT", 40 : i32>, #dlti.dl_entry<"UB_SIZE", 1572864 : i32>, #dlti.dl_entry<"L1_SIZE", 4194304 : i32>, #dlti.dl_entry<"L0A_SIZE", 524288 : i32>, #dlti.dl_entry<"L0B_SIZE", 524288 : i32>, #dlti.dl_entry<"L0C_SIZE", 1048576 : i32>, #dlti.dl_entry<"UB_ALIGN_SIZE", 256 : i32>, #dlti.dl_entry<"L1_ALIGN_SIZE", 256 : i32>, #dlti.dl_entry<"L0C_ALIGN_SIZE", 4096 : i32>>>,   hivm.module_core_type = #hivm.module_core_type<AIC>} {
  func.func @kernel_infer_task_type_function() -> i8 attributes {hacc.function_kind = #hacc.function_kind<HOST>, hacc.host_func_type = #hacc.host_func_type<infer_task_type_function>} {
    %c20_i8 = arith.constant 20 : i8
    return %c20_i8 : i8
  }
  func.func private @nd2nz_float(memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIC>, llvm.emit_c_interface}
  func.func private @mma_tile_float_to_float_tb(memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>, memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>, i1, index, index, index, memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cc>>, i64, i64, i64, i64, i64, i64, i64, i8) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIC>, llvm.emit_c_interface}
  func.func private @fixpipe_nz2nd_float_to_float_4d_to_2d(memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cc>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, i64, i64, i1, i8) attributes {hacc.always_inline, hivm.func_core_type = #hivm.func_core_type<AIC>, llvm.emit_c_interface}
  func.func @kernel(%arg0: i64 {hacc.arg_type = #hacc.arg_type<ffts_base_address>}, %arg1: memref<?xf32, #hivm.address_space<gm>>, %arg2: memref<?xf32, #hivm.address_space<gm>>, %arg3: memref<?xf32, #hivm.address_space<gm>>, %arg4: i32, %arg5: i32, %arg6: i32) attributes {func_dyn_memref_args = dense<[false, true, true, true, false, false, false]> : vector<7xi1>, hacc.entry, hacc.function_kind = #hacc.function_kind<DEVICE>, hivm.func_core_type = #hivm.func_core_type<AIC>, hivm.storage_aligned, mix_mode = "aic"} {
    %false = arith.constant false
    %c0_i8 = arith.constant 0 : i8
    %true = arith.constant true
    %c2 = arith.constant 2 : index
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c5 = arith.constant 5 : index
    %c1_i64 = arith.constant 1 : i64
    %c2_i64 = arith.constant 2 : i64
    %c3_i64 = arith.constant 3 : i64
    %c-1_i64 = arith.constant -1 : i64
    %c196608_i64 = arith.constant 196608 : i64
    %c0_i64 = arith.constant 0 : i64
    %c65536_i64 = arith.constant 65536 : i64
    %c262144_i64 = arith.constant 262144 : i64
    %0 = hivm.hir.pointer_cast(%c65536_i64) : memref<16x16x16x8xf32, #hivm.address_space<cbuf>>
    %1 = hivm.hir.pointer_cast(%c262144_i64) : memref<16x16x16x8xf32, #hivm.address_space<cbuf>>
    %2 = hivm.hir.pointer_cast(%c0_i64) : memref<16x8x16x8xf32, #hivm.address_space<cbuf>>
    %3 = hivm.hir.pointer_cast(%c196608_i64) : memref<16x8x16x8xf32, #hivm.address_space<cbuf>>
    hivm.hir.set_mask_norm
    %4 = hivm.hir.get_block_idx -> i64
    %5 = arith.trunci %4 : i64 to i32
    %6 = arith.muli %arg6, %arg5 : i32
    %7 = arith.divsi %5, %6 : i32
    %8 = arith.remsi %7, %arg4 : i32
    %9 = arith.index_cast %8 : i32 to index
    %10 = arith.remui %9, %c2 : index
    %11 = arith.divui %9, %c2 : index
    %12 = affine.min #map()[%11]
    %13 = affine.min #map1()[%10]
    %14 = hivm.hir.pointer_cast(%c0_i64) : memref<16x8x16x16xf32, #hivm.address_space<cc>>
    hivm.hir.set_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID0>]
    hivm.hir.set_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID1>]
    hivm.hir.set_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID2>]
    hivm.hir.set_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID3>]
    scf.for %arg7 = %c0 to %c5 step %c1 {
      %18 = affine.apply #map2()[%arg7]
      %19 = arith.index_cast %18 : index to i64
      %20 = arith.cmpi eq, %19, %c1_i64 : i64
      %21 = arith.select %20, %1, %0 : memref<16x16x16x8xf32, #hivm.address_space<cbuf>>
      %22 = affine.apply #map2()[%arg7]
      %23 = arith.index_cast %22 : index to i64
      %24 = arith.cmpi eq, %23, %c1_i64 : i64
      %25 = arith.select %24, %3, %2 : memref<16x8x16x8xf32, #hivm.address_space<cbuf>>
      %26 = arith.index_cast %arg7 : index to i64
      %27 = affine.apply #map2()[%arg7]
      %28 = arith.index_cast %27 : index to i1
      %29 = arith.select %28, %c2_i64, %c3_i64 : i64
      %30 = arith.index_cast %27 : index to i1
      %31 = arith.xori %30, %true : i1
      %32 = arith.extui %31 : i1 to i64
      %33 = affine.min #map3()[%arg7]
      %34 = affine.apply #map4()[%11, %arg7]
      %reinterpret_cast_2 = memref.reinterpret_cast %arg1 to offset: [%34], sizes: [128, 128], strides: [600, 1] : memref<?xf32, #hivm.address_space<gm>> to memref<128x128xf32, strided<[600, 1], offset: ?>, #hivm.address_space<gm>>
      %subview_3 = memref.subview %reinterpret_cast_2[0, 0] [%12, %33] [1, 1] : memref<128x128xf32, strided<[600, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x?xf32, strided<[600, 1], offset: ?>, #hivm.address_space<gm>>
      %35 = affine.apply #map5()[%12]
      %36 = affine.apply #map6()[%33]
      %subview_4 = memref.subview %25[0, 0, 0, 0] [%36, %35, 16, 8] [1, 1, 1, 1] : memref<16x8x16x8xf32, #hivm.address_space<cbuf>> to memref<?x?x16x8xf32, strided<[1024, 128, 8, 1]>, #hivm.address_space<cbuf>>
      hivm.hir.wait_flag[<PIPE_MTE1>, <PIPE_MTE2>, %32]
      %cast_5 = memref.cast %subview_3 : memref<?x?xf32, strided<[600, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>
      %cast_6 = memref.cast %subview_4 : memref<?x?x16x8xf32, strided<[1024, 128, 8, 1]>, #hivm.address_space<cbuf>> to memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>
      func.call @nd2nz_float(%cast_5, %cast_6) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>) -> ()
      hivm.hir.set_flag[<PIPE_MTE2>, <PIPE_MTE1>, <EVENT_ID0>]
      %37 = affine.apply #map7()[%arg7, %10]
      %reinterpret_cast_7 = memref.reinterpret_cast %arg2 to offset: [%37], sizes: [256, 128], strides: [600, 1] : memref<?xf32, #hivm.address_space<gm>> to memref<256x128xf32, strided<[600, 1], offset: ?>, #hivm.address_space<gm>>
      %subview_8 = memref.subview %reinterpret_cast_7[0, 0] [%13, %33] [1, 1] : memref<256x128xf32, strided<[600, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x?xf32, strided<[600, 1], offset: ?>, #hivm.address_space<gm>>
      %38 = affine.apply #map5()[%13]
      %subview_9 = memref.subview %21[0, 0, 0, 0] [%36, %38, 16, 8] [1, 1, 1, 1] : memref<16x16x16x8xf32, #hivm.address_space<cbuf>> to memref<?x?x16x8xf32, strided<[2048, 128, 8, 1]>, #hivm.address_space<cbuf>>
      hivm.hir.wait_flag[<PIPE_MTE1>, <PIPE_MTE2>, %29]
      %cast_10 = memref.cast %subview_8 : memref<?x?xf32, strided<[600, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>
      %cast_11 = memref.cast %subview_9 : memref<?x?x16x8xf32, strided<[2048, 128, 8, 1]>, #hivm.address_space<cbuf>> to memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>
      func.call @nd2nz_float(%cast_10, %cast_11) : (memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>) -> ()
      hivm.hir.set_flag[<PIPE_MTE2>, <PIPE_MTE1>, <EVENT_ID1>]
      %39 = arith.cmpi eq, %arg7, %c0 : index
      %cast_12 = memref.cast %25 : memref<16x8x16x8xf32, #hivm.address_space<cbuf>> to memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>
      %cast_13 = memref.cast %21 : memref<16x16x16x8xf32, #hivm.address_space<cbuf>> to memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>
      %cast_14 = memref.cast %14 : memref<16x8x16x16xf32, #hivm.address_space<cc>> to memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cc>>
      func.call @mma_tile_float_to_float_tb(%cast_12, %cast_13, %39, %12, %33, %13, %cast_14, %c0_i64, %c1_i64, %32, %29, %26, %c-1_i64, %c-1_i64, %c0_i8) : (memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>, memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cbuf>>, i1, index, index, index, memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cc>>, i64, i64, i64, i64, i64, i64, i64, i8) -> ()
    } {fixpipe_for_mmad_result_already_inserted = true}
    hivm.hir.wait_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID0>]
    hivm.hir.wait_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID1>]
    hivm.hir.wait_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID2>]
    hivm.hir.wait_flag[<PIPE_MTE1>, <PIPE_MTE2>, <EVENT_ID3>]
    hivm.hir.set_flag[<PIPE_M>, <PIPE_FIX>, <EVENT_ID0>]
    %15 = affine.apply #map8()[%11, %10]
    %reinterpret_cast = memref.reinterpret_cast %arg3 to offset: [%15], sizes: [128, 256], strides: [300, 1] : memref<?xf32, #hivm.address_space<gm>> to memref<128x256xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>>
    %subview = memref.subview %reinterpret_cast[0, 0] [%12, %13] [1, 1] : memref<128x256xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x?xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>>
    %16 = affine.apply #map5()[%12]
    %17 = affine.apply #map5()[%13]
    %subview_0 = memref.subview %14[0, 0, 0, 0] [%17, %16, 16, 16] [1, 1, 1, 1] : memref<16x8x16x16xf32, #hivm.address_space<cc>> to memref<?x?x16x16xf32, strided<[2048, 256, 16, 1]>, #hivm.address_space<cc>>
    hivm.hir.wait_flag[<PIPE_M>, <PIPE_FIX>, <EVENT_ID0>]
    %cast = memref.cast %subview_0 : memref<?x?x16x16xf32, strided<[2048, 256, 16, 1]>, #hivm.address_space<cc>> to memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cc>>
    %cast_1 = memref.cast %subview : memref<?x?xf32, strided<[300, 1], offset: ?>, #hivm.address_space<gm>> to memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>
    call @fixpipe_nz2nd_float_to_float_4d_to_2d(%cast, %cast_1, %c0_i64, %c0_i64, %false, %c0_i8) : (memref<?x?x?x?xf32, strided<[?, ?, ?, ?], offset: ?>, #hivm.address_space<cc>>, memref<?x?xf32, strided<[?, ?], offset: ?>, #hivm.address_space<gm>>, i64, i64, i1, i8) -> ()
    hivm.hir.pipe_barrier[<PIPE_ALL>]
    return
  }
}
