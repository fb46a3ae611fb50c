/**
 * What lies under a plain TCP or Unix socket: libuv's stream, as Node's `net.Socket` itself uses it.
 *
 * A `net.Socket` is a Readable and a Writable with a queue each, and a connection has queues and backpressure of its own. Past them, a
 * message that comes alone costs a microsecond less of Node's own work (ping-pong of plain `net`, ratio to `ws`: 1.16 with them, 1.35 to 1.43
 * past them).
 *
 * None of it is documented, though the same from Node 12 to 24. So each socket is looked at, and whatever does not look as expected is
 * left to the documented way, and all is with `EFFECT_WS_NO_HANDLE` in the environment.
 */

import * as Net from "node:net"
import { platform } from "node:process"
import type * as Stream from "node:stream"
import { getSystemErrorName } from "node:util"
import { natives } from "./natives.js"

/** One write under way; native code keeps it until `oncomplete`. */
export interface WriteRequest {
  oncomplete: ((this: WriteRequest, status: number) => void) | undefined
  /** Keeps the memory of the bytes alive. */
  bytes: unknown
  /** Whoever wrote. */
  writer: unknown
}

/** libuv's stream. */
export interface Handle {
  /** Called with what was read in memory of its own; with nothing at the end, for an error, and after `useUserBuffer`. */
  onread: (this: Handle, memory: ArrayBuffer | undefined) => void
  /** From now on all is read into `bytes`. */
  readonly useUserBuffer: (bytes: Uint8Array) => void
  /** Bytes that were ever read. */
  readonly bytesRead: number
  /** 0, or a negative error number; what the kernel does not take at once is queued. */
  readonly writeBuffer: (request: WriteRequest, bytes: Uint8Array) => number
  readonly writev: (request: WriteRequest, chunks: ReadonlyArray<Uint8Array>, allBuffers: true) => number
  /** Bytes that the kernel did not take yet. */
  readonly writeQueueSize: number
}

/** A socket with a handle, which is `null` once it is destroyed. */
export interface Handled {
  readonly _handle: Handle | null
}

const allowed = !process.env.EFFECT_WS_NO_HANDLE

/** The handle of an open socket, if it is one whose handle may be used. */
export const handleOf = (duplex: Stream.Duplex): Handle | undefined => {
  // A subclass may do something else with the bytes (TLS does).
  if (!allowed || duplex.constructor !== Net.Socket) return undefined
  const { _handle: handle, connecting } = duplex as Stream.Duplex & Partial<Handled> & { connecting: boolean }
  if (connecting || handle === null || handle === undefined) return undefined
  if (typeof handle.writeQueueSize !== "number" || handle.onread?.name !== "onStreamRead") return undefined
  if (typeof handle.writeBuffer !== "function" || typeof handle.writev !== "function") return undefined
  nodeRead ??= handle.onread
  if (handle.onread !== nodeRead) return undefined
  if (Request === undefined) learnRequest(handle)
  return handle
}

/** Node's own reading: what is not read past it goes there. */
let nodeRead: Handle["onread"] | undefined

/** Where sockets are read into that {@link readIntoLent} was called for, one after the other; so large that few messages are cut. */
const lent = natives.scanner?.input ?? new Uint8Array(128 * 1024)
const lentMemory = lent.buffer

/**
 * From now on what is read is in memory that {@link takeLent} gives: without an allocation per read ping-pong of plain `net`, past the
 * queues, goes from 1.35 or 1.43 of `ws` to 1.6. Not on Windows, where the kernel may read while JavaScript runs.
 */
export const readIntoLent = (handle: Handle): boolean => {
  if (platform === "win32") return false
  if (typeof handle.useUserBuffer !== "function" || typeof handle.bytesRead !== "number") return false
  handle.useUserBuffer(lent)
  return true
}

/** What was read just now, `size` bytes, until the next read of any socket. */
export const takeLent = (size: number): Uint8Array<ArrayBuffer> => new Uint8Array(lentMemory, lent.byteOffset, size)

/** Lets Node's socket have what was read. */
export const readByNode = (handle: Handle, memory: ArrayBuffer | undefined): void => nodeRead!.call(handle, memory)

/** Node's class of write requests, which it gives nobody: that of the first buffer which a socket writes by itself. */
let Request: (new () => WriteRequest) | undefined

const learnRequest = (handle: { writeBuffer: Handle["writeBuffer"] }): void => {
  handle.writeBuffer = function (this: Handle, request, bytes) {
    Request ??= request.constructor as new () => WriteRequest
    delete (handle as Partial<typeof handle>).writeBuffer
    return this.writeBuffer(request, bytes)
  }
}

/** Whether {@link write} can be called. */
export const canWrite = (): boolean => Request !== undefined

/**
 * Writes at least one chunk. Gives a negative error number, or how many bytes the kernel did not take yet: if not 0, `oncomplete` is
 * called with `writer` when it has.
 */
export const write = (
  handle: Handle,
  chunks: ReadonlyArray<Uint8Array>,
  writer: unknown,
  oncomplete: NonNullable<WriteRequest["oncomplete"]>
): number => {
  // Native code ends the process for what it does not expect.
  if (!chunks.every(ArrayBuffer.isView)) throw new TypeError("a chunk is no Uint8Array")
  // Never used again: native code may keep it for a while although the queue is empty (the kernel took the rest at the second try).
  const request = new Request!()
  const status = chunks.length === 1 ? handle.writeBuffer(request, chunks[0]!) : handle.writev(request, chunks, true)
  const queued = status < 0 ? status : handle.writeQueueSize
  if (queued > 0) {
    request.oncomplete = oncomplete
    request.bytes = chunks
    request.writer = writer
  }
  return queued
}

/** The error that Node would make. */
export const failure = (status: number): NodeJS.ErrnoException => {
  const code = getSystemErrorName(status)
  return Object.assign(new Error(`write ${code}`), { errno: status, code, syscall: "write" })
}
