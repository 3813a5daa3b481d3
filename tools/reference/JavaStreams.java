// Writes tests/golden/java-streams: object streams as the JDK writes them, and what is in them.
//
//     java --add-opens java.base/java.util=ALL-UNNAMED --add-opens java.base/java.lang=ALL-UNNAMED
//          tools/reference/JavaStreams.java
//
// streams.jsonl has a row for each stream: its name, its bytes in hexadecimal, and either `tree`, the object as text in
// the notation of `tree` below, made by reflection from the object that was written, or `refused`, why a reader without
// classes cannot or should not read it. Made with JDK 17.0.15; nothing of it depends on the JDK's version but the
// serialVersionUIDs of its classes.

import java.io.*;
import java.lang.reflect.*;
import java.nio.file.*;
import java.security.MessageDigest;
import java.util.*;

public class JavaStreams {
    static class Numbers implements Serializable {
        static final long serialVersionUID = -2;
        boolean z, no = true;
        byte b;
        char c;
        short s;
        int i;
        long j;
        float f;
        double d;
        transient int skipped = 9;

        Numbers(long x, double d) {
            z = x < 0; b = (byte) x; c = (char) x; s = (short) x; i = (int) x; j = x; f = (float) d; this.d = d;
        }
    }

    static class Base implements Serializable {
        int id = 7;
        String same = "base";
        Object first;
    }

    static class Derived extends Base {
        long more = 1L << 40;
        String same = "derived";
        int[] ints = {1, -1};
    }

    /** Its superclass writes data of its own, and so does it. */
    static class Writes extends Base {
        int kept = 3;

        private void writeObject(ObjectOutputStream out) throws IOException {
            out.defaultWriteObject();
            out.writeInt(42);
            out.writeObject("in an annotation");
            out.write(new byte[300]);
            out.writeObject(same);
        }
    }

    static class WritesMore extends Writes {
        String last = "after";
    }

    static class Wide implements Externalizable {
        public Wide() {}

        public void writeExternal(ObjectOutput out) throws IOException {
            out.writeUTF("external");
            out.writeObject(List.of("a"));
        }

        public void readExternal(ObjectInput in) {}
    }

    static class Node implements Serializable {
        Object next;
    }

    static class Fails implements Serializable {
        private void writeObject(ObjectOutputStream out) throws IOException {
            throw new NotActiveException("on purpose");
        }
    }

    enum Color { RED, GREEN { @Override public String toString() { return "g"; } } }

    interface Action { void run(); }

    static class Handler implements InvocationHandler, Serializable {
        public Object invoke(Object proxy, Method method, Object[] arguments) { return null; }
    }

    interface Writing { void to(ObjectOutputStream out) throws IOException; }

    static final StringBuilder rows = new StringBuilder();

    static byte[] bytes(Writing writing) throws IOException {
        var bytes = new ByteArrayOutputStream();
        var out = new ObjectOutputStream(bytes);
        try {
            writing.to(out);
        } catch (ObjectStreamException e) {
            // `Fails`: the stream ends with the exception.
        }
        out.close();
        return bytes.toByteArray();
    }

    static void row(String name, String key, String value, Writing writing) throws IOException {
        rows.append("{\"name\":").append(quote(name)).append(",\"").append(key).append("\":").append(quote(value))
            .append(",\"stream\":\"").append(HexFormat.of().formatHex(bytes(writing))).append("\"}\n");
    }

    static void good(String name, Object value) throws Exception {
        row(name, "tree", tree(value), out -> out.writeObject(value));
    }

    static void refused(String name, String why, Writing writing) throws IOException {
        row(name, "refused", why, writing);
    }

    /** A value as text: numbers after the letter of their type, floating-point ones as bits; texts quoted; arrays and
     * objects after the name of their class, fields of the class before those of its superclass. */
    static String tree(Object value) throws Exception {
        if (value == null) return "null";
        if (value instanceof String text) return quote(text);
        if (value instanceof Class<?> type) return "class " + type.getName();
        var type = value.getClass();
        if (value instanceof Enum<?> constant) return "enum " + constant.getDeclaringClass().getName() + "::" + constant.name();
        var items = new ArrayList<String>();
        if (type.isArray()) {
            for (int i = 0; i < Array.getLength(value); i++) {
                var item = Array.get(value, i);
                items.add(type.getComponentType().isPrimitive() ? primitive(item) : tree(item));
            }
            return type.getName() + items;
        }
        if (value instanceof Externalizable) return type.getName() + "{}";
        for (var at = type; at != null; at = at.getSuperclass()) {
            var description = ObjectStreamClass.lookup(at);
            if (description == null) continue;
            for (var field : description.getFields()) {
                var member = at.getDeclaredField(field.getName());
                member.setAccessible(true);
                var item = member.get(value);
                items.add(field.getName() + "=" + (field.isPrimitive() ? primitive(item) : tree(item)));
            }
        }
        return type.getName() + "{" + String.join(", ", items) + "}";
    }

    static String primitive(Object boxed) {
        return switch (boxed.getClass().getSimpleName()) {
            case "Boolean" -> "Z " + boxed;
            case "Byte" -> "B " + boxed;
            case "Character" -> "C " + (int) (Character) boxed;
            case "Short" -> "S " + boxed;
            case "Integer" -> "I " + boxed;
            case "Long" -> "J " + boxed;
            case "Float" -> "F " + Integer.toHexString(Float.floatToRawIntBits((Float) boxed));
            case "Double" -> "D " + Long.toHexString(Double.doubleToRawLongBits((Double) boxed));
            default -> throw new IllegalArgumentException(boxed.getClass().getName());
        };
    }

    /** As JSON, in ASCII. */
    static String quote(String text) {
        var quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') quoted.append('\\').append(c);
            else if (c < ' ' || c > '~') quoted.append(String.format("\\u%04x", (int) c));
            else quoted.append(c);
        }
        return quoted.append('"').toString();
    }

    static Object nested(int depth) {
        Object inner = "inmost";
        for (int i = 0; i < depth; i++) inner = new Object[] {inner};
        return inner;
    }

    public static void main(String[] arguments) throws Exception {
        good("null", null);
        good("text", "hello");
        good("texts of every length of character", new String[] {"", "a\0b", "\u0120the", "\u7530", "\ud83d\ude42", "\uffff"});
        good("boxed numbers", new Object[] {5, 5, 1000, 1000L, (short) 3, (byte) -1, 'x', true, 1.5f, -0.0});
        good("fields of numbers", new Numbers[] {new Numbers(Long.MIN_VALUE, Double.NaN), new Numbers(-1, Double.MIN_VALUE), new Numbers(0x1122334455667788L, 1e300)});
        good("boolean[]", new boolean[] {true, false});
        good("byte[]", new byte[] {-128, 0, 127});
        good("char[]", new char[] {'a', '\ud800', '\uffff'});
        good("short[]", new short[] {-32768, 32767});
        good("int[]", new int[] {Integer.MIN_VALUE, 0, Integer.MAX_VALUE});
        good("long[]", new long[] {Long.MIN_VALUE, Long.MAX_VALUE});
        good("float[]", new float[] {0, -0f, Float.NaN, Float.MAX_VALUE});
        good("double[]", new double[] {0, Double.NEGATIVE_INFINITY, Math.PI});
        good("empty arrays", new Object[] {new int[0], new String[0], new Object[0]});
        good("arrays of arrays", new int[][] {{1}, {}, null, {2, 3}});
        good("classes with superclasses", new Base[] {new Derived(), new Base()});
        good("writeObject with data of its own", new Object[] {new Writes(), new WritesMore(), "after", new Base()});
        good("a list", new ArrayList<>(List.of("a", 1, "a")));
        good("a map", new Object[] {new HashMap<>(Map.of("key", 1, "other", 2)), "after"});
        good("enums", new Object[] {Color.RED, Color.GREEN, Color.RED, Thread.State.NEW});
        good("classes", new Object[] {int.class, String.class, Color.class, Base.class, int[][].class});
        good("externalizable", new Object[] {new Wide(), "after", new Wide()});
        var shared = new Derived();
        var text = new String("shared");
        shared.first = text;
        good("shared objects", new Object[] {shared, text, shared, shared.ints, Color.RED, new Object[] {shared, text}});
        good("depth of 100", nested(100));
        row("reset before", "tree", tree("after"), out -> { out.reset(); out.writeObject("after"); });
        row("reset after", "tree", tree("before"), out -> { out.writeObject("before"); out.reset(); });
        row("a descriptor", "tree", "descriptor " + Base.class.getName(), out -> out.writeObject(ObjectStreamClass.lookup(Base.class)));
        row("a descriptor twice", "tree", "[Ljava.lang.Object;[descriptor " + Base.class.getName() + ", descriptor " + Base.class.getName() + "]",
            out -> out.writeObject(new Object[] {ObjectStreamClass.lookup(Base.class), ObjectStreamClass.lookup(Base.class)}));

        refused("empty stream", "nothing", out -> {});
        refused("two objects", "trailing", out -> { out.writeObject("a"); out.writeObject("b"); });
        refused("reset between objects", "trailing", out -> { out.writeObject("a"); out.reset(); out.writeObject("a"); });
        refused("plain data", "block data", out -> out.writeInt(5));
        refused("long plain data", "block data", out -> out.write(new byte[2000]));
        refused("half a surrogate pair", "surrogate", out -> out.writeObject("a\ud83d"));
        refused("halves in the wrong order", "surrogate", out -> out.writeObject("\ude42\ud83d"));
        refused("depth of 200", "depth", out -> out.writeObject(nested(200)));
        var node = new Node();
        node.next = node;
        refused("an object in itself", "cycle", out -> out.writeObject(node));
        var array = new Object[1];
        array[0] = new Object[] {"a", array};
        refused("an array in itself", "cycle", out -> out.writeObject(array));
        var list = new LinkedList<Object>();
        list.add(list);
        refused("a list in itself", "cycle", out -> out.writeObject(list));
        refused("a chain through references", "depth", out -> {
            var chain = new Node[300];
            for (int i = 0; i < chain.length; i++) {
                chain[i] = new Node();
                chain[i].next = i == 0 ? null : chain[i - 1];
            }
            out.writeObject(chain);
        });
        refused("a proxy", "proxy", out -> out.writeObject(
            Proxy.newProxyInstance(JavaStreams.class.getClassLoader(), new Class<?>[] {Action.class}, new Handler())));
        refused("an exception", "exception", out -> out.writeObject(new Object[] {"a", new Fails()}));
        refused("externalizable of protocol 1", "externalizable", out -> {
            out.useProtocolVersion(ObjectStreamConstants.PROTOCOL_VERSION_1);
            out.writeObject(new Wide());
        });

        var folder = Path.of("tests/golden/java-streams");
        Files.createDirectories(folder);
        var content = rows.toString().getBytes("UTF-8");
        Files.write(folder.resolve("streams.jsonl"), content);
        var hash = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
        Files.writeString(folder.resolve("MANIFEST.json"), """
            {
              "script": "tools/reference/JavaStreams.java",
              "versions": {
                "java": "%s"
              },
              "files": {
                "streams.jsonl": "%s"
              }
            }
            """.formatted(Runtime.version().toString(), hash));
    }
}
