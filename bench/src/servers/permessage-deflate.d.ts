/** The parts of the untyped extension of `websocket-driver` which the benchmark uses. */
declare module "permessage-deflate" {
  const deflate: { readonly name: "permessage-deflate" }
  export default deflate
}

declare module "websocket-driver" {
  interface Driver {
    addExtension(extension: unknown): this
  }
}
