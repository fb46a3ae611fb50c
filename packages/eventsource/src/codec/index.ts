/**
 * The sans-I/O codec of event streams: bytes in, values out; values in, text out. It imports nothing.
 */
export * from "./Decoder.js"
export * from "./Encoder.js"
export * from "./Event.js"
