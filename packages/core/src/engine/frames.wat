;; Unmasks payloads and finds whole data frames, in memory of its own (RFC 6455 §5.2, §5.3). FrameScanner.ts says what for.
;; After a change: node scripts/assemble.mjs --write
(module
  (memory (export "memory") 3 3)

  ;; XORs the bytes from $at to $end with $key, whose lowest byte goes with the first. 0 if all are ASCII afterwards.
  ;; The last bytes of a range are loaded before what overlaps them is stored, so there is no loop for a rest.
  (func $mask (export "mask") (param $at i32) (param $end i32) (param $key i32) (result i32)
    (local $length i32) (local $last i32) (local $i i32)
    (local $keys v128) (local $all v128) (local $v v128) (local $tail v128)
    (local $low i64) (local $high i64)
    (local.set $length (i32.sub (local.get $end) (local.get $at)))
    ;; The key for the last 16, 8 and 4 bytes.
    (local.set $last (i32.rotr (local.get $key) (i32.shl (i32.and (local.get $length) (i32.const 3)) (i32.const 3))))
    (if (i32.ge_u (local.get $length) (i32.const 16))
      (then
        (local.set $keys (i32x4.splat (local.get $key)))
        (local.set $tail
          (v128.xor
            (v128.load align=1 (i32.sub (local.get $end) (i32.const 16)))
            (i32x4.splat (local.get $last))))
        (local.set $all (local.get $tail))
        (block $done
          (loop $next
            (br_if $done (i32.gt_u (i32.add (local.get $at) (i32.const 32)) (local.get $end)))
            (local.set $v (v128.xor (v128.load align=1 (local.get $at)) (local.get $keys)))
            (v128.store align=1 (local.get $at) (local.get $v))
            (local.set $all (v128.or (local.get $all) (local.get $v)))
            (local.set $v (v128.xor (v128.load offset=16 align=1 (local.get $at)) (local.get $keys)))
            (v128.store offset=16 align=1 (local.get $at) (local.get $v))
            (local.set $all (v128.or (local.get $all) (local.get $v)))
            (local.set $at (i32.add (local.get $at) (i32.const 32)))
            (br $next)))
        (if (i32.le_u (i32.add (local.get $at) (i32.const 16)) (local.get $end))
          (then
            (local.set $v (v128.xor (v128.load align=1 (local.get $at)) (local.get $keys)))
            (v128.store align=1 (local.get $at) (local.get $v))
            (local.set $all (v128.or (local.get $all) (local.get $v)))))
        (v128.store align=1 (i32.sub (local.get $end) (i32.const 16)) (local.get $tail))
        (return (i8x16.bitmask (local.get $all)))))
    (if (i32.ge_u (local.get $length) (i32.const 8))
      (then
        (local.set $low
          (i64.xor (i64.load align=1 (local.get $at)) (i64x2.extract_lane 0 (i32x4.splat (local.get $key)))))
        (local.set $high
          (i64.xor
            (i64.load align=1 (i32.sub (local.get $end) (i32.const 8)))
            (i64x2.extract_lane 0 (i32x4.splat (local.get $last)))))
        (i64.store align=1 (local.get $at) (local.get $low))
        (i64.store align=1 (i32.sub (local.get $end) (i32.const 8)) (local.get $high))
        (return
          (i64.ne
            (i64.and (i64.or (local.get $low) (local.get $high)) (i64.const 0x8080808080808080))
            (i64.const 0)))))
    (if (i32.ge_u (local.get $length) (i32.const 4))
      (then
        (local.set $i (i32.xor (i32.load align=1 (local.get $at)) (local.get $key)))
        (local.set $last (i32.xor (i32.load align=1 (i32.sub (local.get $end) (i32.const 4))) (local.get $last)))
        (i32.store align=1 (local.get $at) (local.get $i))
        (i32.store align=1 (i32.sub (local.get $end) (i32.const 4)) (local.get $last))
        (return (i32.and (i32.or (local.get $i) (local.get $last)) (i32.const 0x80808080)))))
    (local.set $last (i32.const 0))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $i (i32.xor (i32.load8_u (local.get $at)) (i32.and (local.get $key) (i32.const 0xff))))
        (i32.store8 (local.get $at) (local.get $i))
        (local.set $last (i32.or (local.get $last) (local.get $i)))
        (local.set $key (i32.shr_u (local.get $key) (i32.const 8)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i32.and (local.get $last) (i32.const 0x80)))

  ;; Unmasks the data frames from $at to $end and writes for each, from $table on, where its payload begins, and
  ;; length * 4 + (text ? 2 : 0) + (ASCII ? 1 : 0). Gives their number. Stops before a frame that is not a whole
  ;; message of at most $limit bytes, is cut by $end, has a length of 64 bits, reserved bits, or not the mask bit $masked
  ;; (128 or 0), and once there are $frames or they have $bytes.
  (func (export "scan")
    (param $at i32) (param $end i32) (param $frames i32) (param $bytes i32) (param $limit i32) (param $masked i32)
    (param $table i32) (result i32)
    (local $entry i32) (local $start i32) (local $length i32) (local $stop i32) (local $opcode i32)
    (local.set $entry (local.get $table))
    (block $done
      (loop $next
        (br_if $done (i32.le_s (local.get $frames) (i32.const 0)))
        (br_if $done (i32.le_s (local.get $bytes) (i32.const 0)))
        ;; Two bytes, and four of key.
        (local.set $start (i32.add (local.get $at) (i32.add (i32.const 2) (i32.shr_u (local.get $masked) (i32.const 5)))))
        (br_if $done (i32.gt_u (local.get $start) (local.get $end)))
        ;; FIN with text (1) or binary (2).
        (local.set $opcode (i32.sub (i32.load8_u (local.get $at)) (i32.const 0x80)))
        (br_if $done (i32.gt_u (i32.sub (local.get $opcode) (i32.const 1)) (i32.const 1)))
        (local.set $length (i32.xor (i32.load8_u offset=1 (local.get $at)) (local.get $masked)))
        ;; 127 is a length of 64 bits, more another mask bit.
        (br_if $done (i32.ge_u (local.get $length) (i32.const 127)))
        (if (i32.eq (local.get $length) (i32.const 126))
          (then
            (local.set $start (i32.add (local.get $start) (i32.const 2)))
            (br_if $done (i32.gt_u (local.get $start) (local.get $end)))
            (local.set $length
              (i32.or
                (i32.shl (i32.load8_u offset=2 (local.get $at)) (i32.const 8))
                (i32.load8_u offset=3 (local.get $at))))
            ;; Not minimal.
            (br_if $done (i32.lt_u (local.get $length) (i32.const 126)))))
        (local.set $stop (i32.add (local.get $start) (local.get $length)))
        (br_if $done (i32.gt_u (local.get $stop) (local.get $end)))
        (br_if $done (i32.gt_s (local.get $length) (local.get $limit)))
        (i32.store (local.get $entry) (local.get $start))
        (i32.store offset=4 (local.get $entry)
          (i32.or
            (i32.or
              (i32.shl (local.get $length) (i32.const 2))
              (i32.shl (i32.and (local.get $opcode) (i32.const 1)) (i32.const 1)))
            (i32.eqz
              (call $mask
                (local.get $start)
                (local.get $stop)
                (if (result i32) (local.get $masked)
                  (then (i32.load align=1 (i32.sub (local.get $start) (i32.const 4))))
                  (else (i32.const 0)))))))
        (local.set $entry (i32.add (local.get $entry) (i32.const 8)))
        (local.set $frames (i32.sub (local.get $frames) (i32.const 1)))
        (local.set $bytes (i32.sub (local.get $bytes) (local.get $length)))
        (local.set $at (local.get $stop))
        (br $next)))
    (i32.shr_u (i32.sub (local.get $entry) (local.get $table)) (i32.const 3))))
